"""A loop that prints whatever comes: bytes that are no text, lines of a megabyte, what looks like a protocol."""

import os
import sys

import gymnasium as gym
from tally import Tally

tally = Tally()
env = gym.make("CartPole-v1")
env.action_space.seed(1)
observation, _ = env.reset(seed=1)
tally.reset()
for number in range(300):
    observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    tally.step(reward, terminated or truncated)
    tally.see(observation)
    if number % 50 == 0:
        sys.stdout.buffer.write(bytes(range(256)) + b"\n\xff\xfe\x00 no utf-8 \xc3\n")
        sys.stdout.flush()
        print("x" * 1_000_000)
        print("y" * 1_000_000, file=sys.stderr)
        print('{"kind": "step", "reward": 1.0}')
        print("runlane: a line that only looks like one of somebody else\r\x1b[2Kand a half one", end="")
        sys.stderr.buffer.write(b"\x80\x81 stderr \xff\n")
        sys.stderr.flush()
        os.write(1, b"past every buffer\n")
    if terminated or truncated:
        env.reset()
        tally.reset()
env.close()
tally.write(sys.argv[1])
sys.stdout.write("no newline at the end")
