"""Memory of a process over time: samples from /proc, and a straight line through them. No process is started here."""

import math
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

FLAT_MINUTES = 20.0
FLAT_SHARE = 0.05
END_SHARE = 0.05  # what counts as the start and as the end of the samples


@dataclass(frozen=True, slots=True)
class Sample:
    """Kibibytes at one moment; None where access is refused.

    `pss` shares pages among their users, `uss` is what nobody else has, `heap` what stands for no file: a journal's
    mapped segments are in the other three, and come and go.
    """

    at_s: float
    rss: int
    pss: int | None
    uss: int | None
    heap: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """Least squares: KiB per minute, and the half width of its 95 % interval.

    Samples of a process follow each other closely, which plain least squares takes for certainty. So the interval
    counts each stretch of equal values as one sample.
    """

    slope: float
    half_width: float


@dataclass(slots=True)
class MemorySeries:
    """All samples of one process after the warm-up. A process that was restarted is another series."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list[Sample])

    def take(self, at_s: float) -> bool:
        """Add a sample; False when the process is gone."""
        sample = sample_of(self.pid, at_s)
        if sample is not None:
            self.samples.append(sample)
        return sample is not None

    def rss_at_ends(self) -> tuple[float, float]:
        """Mean RSS of the first and of the last samples, KiB."""
        count = max(1, int(len(self.samples) * END_SHARE))
        values = [sample.rss for sample in self.samples]
        return sum(values[:count]) / count, sum(values[-count:]) / count

    def line(self) -> Line:
        """The straight line through the RSS; no slope from fewer than three samples."""
        return fitted([(sample.at_s / 60, float(sample.rss)) for sample in self.samples])

    @property
    def is_flat(self) -> bool:
        """Whether 20 minutes at this slope move less than 5 % of the RSS."""
        mean = sum(sample.rss for sample in self.samples) / max(1, len(self.samples))
        return abs(self.line().slope) * FLAT_MINUTES < FLAT_SHARE * mean


def sample_of(pid: int, at_s: float) -> Sample | None:
    """What /proc says now: `smaps_rollup` where it may be read, else only the RSS of `statm`."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {
            name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in text.splitlines()[1:])
        }
        uss = sizes["Private_Clean"] + sizes["Private_Dirty"]
        return Sample(at_s, sizes["Rss"], sizes["Pss"], uss, sizes["Anonymous"])
    except PermissionError:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return Sample(at_s, pages * os.sysconf("SC_PAGE_SIZE") // 1024, None, None, None)
    except (FileNotFoundError, ProcessLookupError, KeyError):  # gone, or a zombie, which has no memory
        return None


def fitted(points: list[tuple[float, float]]) -> Line:
    """Least squares through (minutes, KiB)."""
    count = len(points)
    if count < 3:
        return Line(0.0, math.inf)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    distinct = 1 + sum(before[1] != after[1] for before, after in pairwise(points))
    if rest == 0:
        return Line(slope, 0.0)
    independent = max(3, distinct)
    return Line(slope, 1.96 * math.sqrt(rest / (independent - 2) / (spread * independent / count)))
