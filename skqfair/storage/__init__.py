"""What is kept on disk: the cache and its key, and estimators saved without pickle."""

from skqfair.storage._cache import Cache
from skqfair.storage._cache_key import fingerprint
from skqfair.storage._saved_state import SavedState

__all__ = ["Cache", "SavedState", "fingerprint"]
