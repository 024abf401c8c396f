"""The only place where values, events and dags become bytes."""

from compensate.codec.values import TypeCodec, encode_any, type_codec

__all__ = ["TypeCodec", "encode_any", "type_codec"]
