"""Durable sagas for Python: actions with undos, a log of every step, and an honest end after any failure."""

__version__ = "0.1.0"
