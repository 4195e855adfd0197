"""multiprocessing with each start method: an environment per process, and a pool: `processes.py RESULT METHOD`."""

import multiprocessing
import sys
from pathlib import Path

import gymnasium as gym
from tally import Tally


def rollout(path, name, seed):
    """A process's own environment."""
    tally = Tally(seed)
    env = gym.make("CartPole-v1")
    env.action_space.seed(seed)
    env.reset(seed=seed)
    tally.reset(name)
    for _ in range(80 + 10 * seed):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        tally.step(reward, terminated or truncated, name)
        tally.see(observation, reward)
        if terminated or truncated:
            env.reset()
            tally.reset(name)
    env.close()
    tally.write(f"{path}.{name}")
    return sum(episode[0] for episode in tally.environments[name]["ended"])


def main():
    path, method = sys.argv[1:3]
    tally = Tally()
    context = multiprocessing.get_context(method)
    names = [f"process-{number}" for number in range(2)]
    started = [context.Process(target=rollout, args=(path, name, seed)) for seed, name in enumerate(names)]
    for process in started:
        process.start()
    rollout(path, "main", 7)
    for process in started:
        process.join()
    print("exit codes", [process.exitcode for process in started])
    with context.Pool(2) as pool:
        print("pool", pool.starmap(rollout, [(path, f"pool-{number}", 3 + number) for number in range(3)], 1))
        pool.close()
        pool.join()
    for name in (*names, "main", *(f"pool-{number}" for number in range(3))):
        tally.merge(f"{path}.{name}")
        Path(f"{path}.{name}").unlink()
    tally.write(path)


if __name__ == "__main__":
    main()
