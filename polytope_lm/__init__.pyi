from . import changes as changes
from . import codes as codes
from . import geometry as geometry
from . import pairs as pairs
from . import paths as paths
from . import predictions as predictions
from . import worlds as worlds
from .changes.change import change as change
from .changes.trust_radius import trust_radius as trust_radius
from .codes.capture import capture as capture
from .codes.capture import encode as encode
from .codes.capture import with_model as with_model
from .codes.store.reader import open_store as open_store
from .documents import documents as documents
from .errors import PolytopeError as PolytopeError
from .geometry.measure import measure as measure
from .geometry.spline_features import SplineFeatures as SplineFeatures
from .models.loading import load as load
from .models.loading import wrap as wrap
from .paths.path import path as path
from .predictions.calibration.test import calibrate as calibrate
from .representations import representation as representation
from .result import load_result as load_result
from .result import load_results as load_results

__version__: str
