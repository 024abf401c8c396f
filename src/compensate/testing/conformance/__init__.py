"""What every store must do, as checks that an author of a store can run.

Each check takes a `Place`: somewhere to keep sagas, empty at first, over which stores can be opened. Run every one of
`CHECKS` on a new place; a check that fails raises, mostly an `AssertionError`. None waits for ever
because a store is wrong.

```python
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_my_store(check, tmp_path):
    asyncio.run(check(MyPlace(tmp_path)))
```
"""

from compensate.testing.conformance import deaths as _deaths
from compensate.testing.conformance import logs as _logs
from compensate.testing.conformance import looking as _looking
from compensate.testing.conformance import ownership as _ownership
from compensate.testing.conformance.tools import CHECKS, Check, Place

# Importing the modules has filled CHECKS.
del _deaths, _logs, _ownership, _looking

__all__ = ["CHECKS", "Check", "Place"]
