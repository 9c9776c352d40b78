"""What the open-data tutorials look at, for one event in one detector: quality, spectrum, Q-transform, matched filter.

Significance needs a second detector: where its strain is there too, its triggers are shifted against this one's.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bigdata_assets.gravitational_waves.logic.strain import matched_filter, qscans, time_slides
from bigdata_assets.gravitational_waves.logic.strain.events import Event
from bigdata_assets.gravitational_waves.logic.strain.simulation import binary
from bigdata_assets.gravitational_waves.logic.strain.strain import Strain, StrainError
from bigdata_assets.gravitational_waves.logic.training.gravity_spy import VIEWS_S
from bigdata_assets.reports import FIGURE_IN, Report

ASD_SEGMENT_S = 4.0
VIEWS = "Q-transform: the views that the models see"
QUALITY = "Strain, and what its quality flags say of each second"
NEAR_S = 0.15
"""Before and after the merger, in the pictures of it."""


def report(strains: Mapping[str, Strain], detector: str, event: Event) -> Report:
    """The page of one detector.

    Args:
        strains: by detector, of the same event.
        detector: the one that the page is about.
        event: what is looked at.
    """
    title = f"{event.name} in {detector}"
    if detector not in strains:
        return Report(title, "There is no strain; quarantined_strain says why.")
    strain, notes = strains[detector], []
    found: dict[str, matched_filter.Found] = {}

    def picture(name: str, draw: Callable[[Strain, Event], Any]) -> dict[str, Any]:
        try:
            return {name: draw(strain, event)}
        except StrainError as error:
            notes.append(f"No {name.partition(':')[0]}: {error}")
            return {}

    views, spectrum = picture(VIEWS, _views), picture("Amplitude spectral density", _spectrum)
    try:
        found[detector] = _filtered(strain, event)
    except StrainError as error:
        notes.append(f"No matched filter: {error}")
    for other in sorted(strains.keys() - {detector}) if found else ():
        try:
            found[other] = _filtered(strains[other], event, found[detector].masses)
        except StrainError:
            continue  # its own page says so
    page = _page(title, strains, detector, event, found) if found else Report(title, "")
    return replace(
        page,
        summary=" ".join([page.summary, *notes]).strip(),
        tables=dict(page.tables) | {"Data quality": _quality_table(strain), "Strain files": _files(strains)},
        figures=views | dict(page.figures) | spectrum | {QUALITY: _quality(strain, event)},
    )


def _files(strains: Mapping[str, Strain]) -> pd.DataFrame:
    rows = [
        {"detector": name, "file": strain.file or "not known", "rate_hz": strain.rate_hz}
        for name, strain in sorted(strains.items())
    ]
    return pd.DataFrame(rows)


def _filtered(strain: Strain, event: Event, masses: tuple[float, float] | None = None) -> matched_filter.Found:
    """The matched filter of the stretch that the event is in; times from the stretch's first sample."""
    event_s = event.gps_s - strain.gps_start_s
    begin, end = strain.stretch_around(event_s)
    if not begin + matched_filter.BEFORE_S <= event_s < end - matched_filter.AFTER_S:
        raise StrainError(
            f"there are {event_s - begin:.1f} s of strain before it and {end - event_s:.1f} after it: "
            f"{matched_filter.BEFORE_S:g} and {matched_filter.AFTER_S:g} are needed."
        )
    values = strain.between(begin, end)
    masses = masses or event.masses or matched_filter.loudest_masses(values, strain.rate_hz)
    return matched_filter.matched_filter(values, strain.rate_hz, masses, event.spins)


def _page(
    title: str,
    strains: Mapping[str, Strain],
    detector: str,
    event: Event,
    found: Mapping[str, matched_filter.Found],
) -> Report:
    """What the matched filter has found."""
    starts = {name: _gps_start(strains[name], event) for name in found}
    ours, start = found[detector], starts[detector]
    peaks = {
        name: {
            "detector": name,
            "gps_s": round(starts[name] + each.time_s[each.peak], 4),
            "snr": float(each.snr[each.peak]),
            "reduced_chi2": float(each.reduced_chi2[each.peak]),
        }
        for name, each in found.items()
    }
    peak = peaks[detector]
    numbers = {
        "SNR": peak["snr"],
        "reduced χ²": peak["reduced_chi2"],
        "ms from the listed time": 1000 * (peak["gps_s"] - event.gps_s),
    }
    summary = (
        f"{_loudest(ours, event)} is loudest at GPS {peak['gps_s']:.4f}, {numbers['ms from the listed time']:+.0f} ms "
        f"from the listed time, with a signal-to-noise ratio of {peak['snr']:.1f} and a reduced χ² of "
        f"{peak['reduced_chi2']:.2f}.{_doubt(ours, event)}"
    )
    pictures = {
        "Matched filter: signal-to-noise ratio over time, and χ² by degree of freedom": _snr(ours, start, event),
        "Whitened strain, 30 to 300 Hz, and the waveform that fits": _white(ours, start),
    }
    trials = 1 if event.masses else len(matched_filter.BANK)
    for other in sorted(found.keys() - {detector}):
        within_s = time_slides.window_s((detector, other))
        slides = _slides(found, starts, (detector, other), within_s)
        network, rate = f"network SNR with {other}", f"false alarms an hour with {other}, at most"
        near = np.abs(starts[other] + found[other].time_s - peak["gps_s"]) <= within_s
        numbers[network] = float(np.hypot(peak["snr"], found[other].snr[near].max(initial=0)))
        numbers[rate] = trials * 3600 * slides.false_alarms_per_s
        summary += (
            f" With {other}, within {1000 * within_s:.0f} ms, the network's is {numbers[network]:.1f}. The loudest "
            f"coincidence is at GPS {slides.at_gps_s:.4f}; of {slides.slides.size} time slides, "
            f"{slides.slides.size * slides.observed_s / 60:.0f} minutes, {slides.louder} have one as loud: at most "
            f"{numbers[rate]:.2g} an hour{f', {trials} waveforms having been tried' if trials > 1 else ''}."
        )
        pictures[f"Time slides against {other}: loudest coincidence of each"] = _histogram(slides)
    pictures["The waveform"] = _waveform(ours.masses, event.spins)
    return Report(
        title,
        summary,
        numbers=numbers,
        tables={"Loudest moments": pd.DataFrame(list(peaks.values()))},
        figures=pictures,
        provenance={
            "masses": "listed" if event.masses else f"the loudest of the bank.{_doubt(ours, event)}",
            "waveform": matched_filter.APPROXIMANT,
        },
    )


def _loudest(found: matched_filter.Found, event: Event) -> str:
    masses = f"{found.masses[0]:g} and {found.masses[1]:g} solar masses"
    if event.masses:
        return f"The waveform of {masses}"
    first, *_, last = (mass for mass, _ in matched_filter.BANK)
    return (
        f"The masses are not listed: of {len(matched_filter.BANK)} waveforms, {first:g} to {last:g}, that of {masses}"
    )


def _doubt(found: matched_filter.Found, event: Event) -> str:
    """Why the masses of a bank's waveform are not those of the event."""
    if event.masses:
        return ""
    if matched_filter.is_edge(found.masses):
        return " It is at the bank's edge, and the bank may not reach the event: this is no estimate of its masses."
    if found.reweighted_snr.max() < matched_filter.FOUND_SNR:
        return " Noise is as loud with so many tried: this is no estimate of its masses."
    return ""


def _gps_start(strain: Strain, event: Event) -> float:
    """GPS time of the stretch's first sample."""
    return strain.gps_start_s + strain.stretch_around(event.gps_s - strain.gps_start_s)[0]


def _slides(
    found: Mapping[str, matched_filter.Found], starts: Mapping[str, float], pair: tuple[str, str], within_s: float
) -> time_slides.Slides:
    times = [starts[name] + found[name].time_s for name in pair]
    first, second = (
        time_slides.triggers(gps_s, found[name].reweighted_snr) for name, gps_s in zip(pair, times, strict=True)
    )
    begin, end = max(gps_s[0] for gps_s in times), min(gps_s[-1] for gps_s in times)
    return time_slides.slide(first, second, begin, end, within_s)


def _quality_table(strain: Strain) -> pd.DataFrame:
    """Seconds with each flag set, and with data."""
    rows = [
        {"flag": flag, "seconds": int(np.sum(strain.quality >> bit & 1)), "of": len(strain.quality)}
        for bit, flag in enumerate(strain.flags)
    ]
    return pd.DataFrame(
        [*rows, {"flag": "gaps", "seconds": sum(end - begin for begin, end in strain.gaps), "of": len(strain.quality)}]
    )


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(FIGURE_IN, height), layout="constrained")


def _quality(strain: Strain, event: Event) -> Any:
    figure = _figure(4.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.2))
    time_s = np.arange(len(strain.values)) / strain.rate_hz
    upper.plot(time_s, strain.values, linewidth=0.5)
    upper.axvline(event.gps_s - strain.gps_start_s, color="C3", linewidth=0.8)
    upper.set(ylabel="strain")
    bits = np.array([strain.quality >> bit & 1 for bit in range(len(strain.flags))])
    lower.imshow(
        bits, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1, extent=(0, len(strain.quality), len(bits), 0), alpha=0.6
    )
    lower.set(xlabel=f"seconds from GPS {strain.gps_start_s}", yticks=np.arange(len(bits)) + 0.5)
    lower.set_yticklabels(strain.flags, fontsize=7)
    return figure


def _views(strain: Strain, event: Event) -> Any:
    figure = _figure(2.6)
    time_s = event.gps_s - strain.gps_start_s
    begin, end = strain.stretch_around(time_s)
    images = qscans.qscan(strain.between(begin, end), strain.rate_hz, time_s - begin)
    for axes, image, view_s in zip(figure.subplots(1, len(VIEWS_S)), images, VIEWS_S, strict=True):
        axes.imshow(image, cmap="gray", vmin=0.08, vmax=0.87, aspect="auto", extent=(-view_s / 2, view_s / 2, 0, 1))
        axes.grid(visible=False)
        low, high = qscans.BAND_HZ
        ticks = np.array([16, 64, 256, 1024])
        axes.set(xlabel="s", yticks=np.log(ticks / low) / np.log(high / low))
        axes.set_yticklabels([f"{tick}" for tick in ticks] if axes is figure.axes[0] else [])
        if view_s < 1:
            axes.set_xticks([-0.4 * view_s, 0.4 * view_s])  # more would touch each other
    figure.axes[0].set_ylabel("Hz")
    return figure


def _snr(found: matched_filter.Found, start: float, event: Event) -> Any:
    figure = _figure(3.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    time_s = start + found.time_s - event.gps_s
    upper.plot(time_s, found.snr, linewidth=0.7)
    lower.semilogy(time_s, found.reduced_chi2, linewidth=0.7)
    upper.set(ylabel="SNR")
    lower.set(ylabel="reduced χ²", xlabel=f"seconds from GPS {event.gps_s:.2f}")
    return figure


def _white(found: matched_filter.Found, start: float) -> Any:
    figure = _figure(3)
    axes = figure.subplots()
    at_s = found.time_s[found.peak]
    near = np.abs(found.white_time_s - at_s) < NEAR_S
    axes.plot(found.white_time_s[near] - at_s, found.white[near], color="0.6", label="strain")
    axes.plot(found.white_time_s[near] - at_s, found.white_waveform[near], label="waveform")
    axes.set(xlabel=f"seconds from GPS {start + at_s:.4f}", ylabel="standard deviations")
    axes.legend()
    return figure


def _histogram(slides: time_slides.Slides) -> Any:
    figure = _figure(3)
    axes = figure.subplots()
    axes.hist(slides.slides, bins=40, color="0.6", label="shifted")
    axes.axvline(slides.loudest, color="C3", label="not shifted")
    axes.set(xlabel="loudest coincidence, re-weighted network SNR", ylabel="time slides", yscale="log")
    axes.legend()
    return figure


def _spectrum(strain: Strain, event: Event) -> Any:
    from gwpy.timeseries import TimeSeries

    begin, end = strain.stretch_around(event.gps_s - strain.gps_start_s)
    if end - begin < ASD_SEGMENT_S:
        raise StrainError(f"there are {end - begin:.1f} s of strain around it: {ASD_SEGMENT_S:g} are needed.")
    series = TimeSeries(strain.between(begin, end), sample_rate=strain.rate_hz)
    figure = _figure(3.6)
    axes = figure.subplots()
    for method in ("welch", "median"):
        density = series.asd(ASD_SEGMENT_S, ASD_SEGMENT_S / 2, method=method)
        axes.loglog(density.frequencies.value[1:], density.value[1:], linewidth=0.8, label=method)
    axes.set(xlim=(10, strain.rate_hz / 2), xlabel="Hz", ylabel="strain / √Hz")
    axes.legend()
    return figure


def _waveform(masses: tuple[float, float], spins: tuple[float, float]) -> Any:
    n_samples = 4_096
    plus = binary(masses, spins, n_samples, n_samples, 0.95)
    figure = _figure(2.6)
    axes = figure.subplots()
    axes.plot(np.arange(n_samples) / n_samples - 0.95, plus, linewidth=0.8)
    axes.set(xlabel="seconds from the merger", ylabel="h₊ at 1 Mpc")
    return figure
