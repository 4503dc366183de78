"""Says figures as people read them."""


def seconds(value: float) -> str:
    """12.3 s, 45.6 ms."""
    if abs(value) < 1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.1f} s" if abs(value) < 100 else f"{value:.0f} s"


def mebibytes(value: float) -> str:
    """Bytes as MiB."""
    return f"{value / (1 << 20):,.0f} MiB"


def share(value: float) -> str:
    """A fraction as a percentage."""
    return f"{value * 100:.1f} %"
