/* At random, in any environment with numbered actions: choices(N) tells how many there are. */

+turn(_) <- !wander.

+!wander : choices(Count) <-
    .act(.random * Count).
