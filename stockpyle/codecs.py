import pickle
from enum import IntEnum
from stockpyle.records import *
from stockpyle.keys import Key
from stockpyle.exceptions import *


class Kind(IntEnum):
    LEASE = 0
    RECORD = 1
    LOCK = 2
    ALIAS = 3
    ABSENT = 4


class Codec:
    pass


class RecordCodec:
    def __init__(self, codec=None, *, allow_pickle=False):
        pass

    def encode(self, key, value, epoch, now):
        from stockpyle.classes import spec_of

        if isinstance(value, Alias):
            return Kind.ALIAS, epoch + pickle.dumps((value.identity.values, value.deadline))
        if value.is_absent:
            return Kind.ABSENT, epoch + pickle.dumps((None, None, value.deadline))
        return Kind.RECORD, epoch + pickle.dumps((value.spec.klass, value.value, value.deadline))

    def decode(self, key, data, epoch):
        from stockpyle.classes import spec_of

        if data[:16] != epoch:
            return None
        t = pickle.loads(data[16:])
        if len(t) == 2:
            return Alias(Key(key.spec, key.spec.identity, t[0]), t[1])
        if t[0] is None:
            return Record(key.spec, ABSENT, t[2])
        return Record(spec_of(t[0]), t[1], t[2])
