"""arm(): hook the libraries of this process, as `runlane run` does in every Python below it. Nothing is edited."""

from runlane.workers import site_hook


def arm() -> None:
    """Record every environment this process makes from now on, and the scalars it logs. Again: nothing."""
    site_hook.install()
