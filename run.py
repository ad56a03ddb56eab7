"""One run, or a sweep: `python run.py method=sdedit`, `python run.py -m method.steps=10,50`."""

import sys


def main() -> int:
    import hydra

    from zerocon.app import exit_status, preflight, run_one

    status, statuses = preflight(sys.argv[1:]), list[int]()
    if status is not None:
        return status
    hydra.main(config_path="conf", config_name="config", version_base="1.3")(
        lambda cfg: statuses.append(run_one(cfg))
    )()
    return exit_status(sys.argv[1:], statuses)


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\nrun.py: {str(error) or 'stopped'}; the same command continues\n")
        status = 130
    sys.exit(status)
