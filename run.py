"""One run, or a sweep: `python run.py method=sdedit`, `python run.py -m method.steps=10,50`."""

import sys

import hydra
from omegaconf import DictConfig

from zerocon.app import exit_status, preflight, run_one

STATUS: list[int] = []


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> None:
    STATUS.append(run_one(cfg))


if __name__ == "__main__":
    status = preflight(sys.argv[1:])
    if status is None:
        main()
        status = exit_status(sys.argv[1:], STATUS)
    sys.exit(status)
