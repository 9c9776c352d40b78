"""The branch's commands."""

import click

from bigdata_assets import settings as settings_module
from bigdata_assets.commands import group


@group.command("add-event")
@click.argument("name")
@click.option("--gps", type=float, help="GPS time, for strain files that are in the sources' folder already.")
@click.option(
    "--masses", type=float, nargs=2, help="In the detector's frame, solar masses; default: the loudest found."
)
def add_event(name: str, gps: float | None, masses: tuple[float, float] | None) -> None:
    """Add a gravitational-wave event: with BIGDATA_SOURCES=official its strain is fetched from GWOSC."""
    import dagster as dg

    from bigdata_assets import runtime
    from bigdata_assets.gravitational_waves import partitions
    from bigdata_assets.gravitational_waves.logic.strain import events
    from bigdata_assets.gravitational_waves.logic.strain.strain import StrainFileError
    from bigdata_assets.services import stack

    settings = settings_module.load()
    folder = partitions.events_folder(runtime.sources(settings))
    if folder is None or settings.sources == "sample":
        raise click.UsageError("BIGDATA_SOURCES must be `official`, or a folder with a sub-folder gravitational_waves.")
    try:
        if gps is not None:
            event = events.Event(name, gps, masses)
            if not events.detectors(folder, event):
                raise StrainFileError(f"{folder / events.FOLDER} has no file that covers GPS time {gps}")
            events.add(folder, event)
        elif settings.sources == "official":
            events.fetch(folder, name, masses)
        else:
            raise click.UsageError("--gps is needed for strain files of a folder of yours")
        keys = [key for key in events.keys(folder) if events.parse(key)[0] == name]
        if not keys:
            raise StrainFileError(f"{name} has files of none of {', '.join(events.DETECTORS)}")
    except StrainFileError as error:
        raise click.ClickException(str(error)) from error
    stack.prepare_dagster_home(settings, end_runs=False)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.add_dynamic_partitions(str(partitions.SKY_EVENTS.name), keys)
    click.echo(f"added {', '.join(keys)}; to look at one:")
    click.echo(f"bigdata-assets materialize --select 'key:\"gravitational_waves/strain\"+' --partition {keys[0]}")
