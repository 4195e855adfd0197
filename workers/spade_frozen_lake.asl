/* Over the frozen lake: FrozenLake-v1 on its 4x4 map, whose cells count from 0 row by row.

   The worker tells   state(Cell)   where the agent stands
                      turn(Number)  it is to act now, for the Number-th time
                      episode(N)    which episode this is
                      option(slippery)  only where it slips: two of three steps go aside
   and .act(Action) makes the step. */

move(left, 0). move(down, 1). move(right, 2). move(up, 3).

/* Where a step goes where it is meant to: the shortest way round the holes at 5, 7, 11 and 12. */
way(0, down). way(4, down). way(8, right). way(9, down). way(13, right). way(14, right).

/* And from the cells beside it, should it ever stand there. */
way(1, right). way(2, down). way(3, left). way(6, down). way(10, down).

/* Where it slips, walk against what must not happen: a step never goes backwards. */
care(0, left). care(1, up). care(2, up). care(3, up).
care(4, left). care(6, left).
care(8, up). care(9, down). care(10, left).
care(13, right). care(14, down).

+turn(_) <- !cross.

+!cross : option(slippery) & state(Cell) & care(Cell, Direction) & move(Direction, Action) <-
    .act(Action).

+!cross : state(Cell) & way(Cell, Direction) & move(Direction, Action) <-
    .act(Action).
