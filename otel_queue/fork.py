"""What an object has to do in a forked child."""

import os
import weakref
from collections.abc import Callable


def call_in_children(method: Callable[[], None]) -> None:
    """Has a bound method called in every forked child, as long as its object lives elsewhere than here.

    What is registered at fork stays so for ever: an object that it held on to would never be let go.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        living = reference()
        if living is not None:
            living()

    os.register_at_fork(after_in_child=call)
