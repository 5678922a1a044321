package expand

import _ "runtime/pprof"
