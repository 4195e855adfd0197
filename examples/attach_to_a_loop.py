"""A training loop written by hand, without Gymnasium: a walk that learns which way to go.

Try it: runlane run -- python examples/attach_to_a_loop.py
"""

import math
import random
import sys

from runlane.workers import attach


def main(steps: int = 50_000) -> None:
    """Walk from 0 to +10 (reward 1) or -10 (reward -1); learn one number, the logit of stepping right."""
    lane = attach(name="line-walk", config={"steps": steps, "learning_rate": 0.002, "seed": 0})
    random.seed(0)
    logit, position, eligibility = 0.0, 0, 0.0
    episode_returns: list[float] = []
    for _ in range(steps):
        chance = 1 / (1 + math.exp(-logit))
        action = int(random.random() < chance)
        position += 1 if action else -1
        eligibility += action - chance  # REINFORCE: gradient of the log-probability
        is_over = abs(position) == 10
        reward = position / 10 if is_over else 0.0
        lane.step(action, reward, terminated=is_over)
        if is_over:
            logit += 0.002 * reward * eligibility
            lane.metric("policy/chance_right", chance)
            episode_returns.append(reward)
            position, eligibility = 0, 0.0
    lane.close()
    newest = episode_returns[-100:]
    print(f"steps {steps} episodes {len(episode_returns)} mean return {sum(newest) / max(1, len(newest)):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
