printf '#!/bin/sh\necho evil program ran\n' >script; chmod 755 script; ran "$(./script)"
