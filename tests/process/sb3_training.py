# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
"""A script of a user's with Stable-Baselines3: two calls of `learn`, scaled rewards; with the callback or without.

Prints a digest of what was learnt, and what the environments counted.
"""

import hashlib
import sys

import gymnasium as gym
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

count = {"steps": 0, "ended": 0, "returns": 0.0}


class Counting(gym.Wrapper):
    """The script's own count, of each environment as its agent steps it."""

    total = 0.0

    def step(self, action):
        result = self.env.step(action)
        count["steps"] += 1
        self.total += float(result[1])
        if result[2] or result[3]:
            count["ended"] += 1
            count["returns"] += self.total
            self.total = 0.0
        return result

    def reset(self, **options):
        self.total = 0.0
        return self.env.reset(**options)


def main():
    vec_env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=5, wrapper_class=Counting))
    model = A2C("MlpPolicy", vec_env, seed=5, device="cpu", verbose=0)
    callback = None
    if "--callback" in sys.argv:
        from runlane.workers import RunlaneCallback

        callback = RunlaneCallback(name="mine", config={"note": "x"})
    model.learn(1200, callback=callback)
    model.learn(400, callback=callback)
    digest = hashlib.sha256(b"".join(part.detach().numpy().tobytes() for part in model.policy.parameters()))
    print(digest.hexdigest(), count["steps"], count["ended"], count["returns"])


if __name__ == "__main__":
    main()
