/* At random, in any environment with numbered actions: choices(N) tells how many there are, .pick(N, Action) picks one. */

+turn(_) <- !wander.

+!wander : choices(Count) <-
    .pick(Count, Action);
    .act(Action).
