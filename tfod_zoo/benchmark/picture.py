"""The picture that latency is measured on, the same in every run and on every machine."""

from __future__ import annotations

import numpy as np

# TFOD's published latencies are of COCO images, whose commonest size this is.
HEIGHT, WIDTH = 480, 640
_SEED = 2017
# Amplitude falls as 1 / frequency^slope; photographs lie around 1 to 1.4 (Field 1987).
_SPECTRAL_SLOPE = 1.3


def photograph_like(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 [height, width, 3]: coloured noise with the falling spectrum of photographs, over the whole range 0..255.

    A blank image would be unfair: post-processing would find one score everywhere, and resizing nothing to do.
    """
    random = np.random.default_rng(_SEED)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1.0
    amplitude = (frequency**-_SPECTRAL_SLOPE)[..., None]
    phases = np.exp(2j * np.pi * random.random((height, width // 2 + 1, 3)))
    # Photographs are mostly luminance: mix the three channels towards their mean.
    spectrum = amplitude * (0.3 * phases + 0.7 * phases.mean(axis=2, keepdims=True))
    channels = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    low, high = channels.min(), channels.max()
    return np.round((channels - low) / (high - low) * 255).astype(np.uint8)
