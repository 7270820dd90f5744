$poke setattr /var 8 0; undo "$poke setattr /var 0 8"; printf '#!/bin/sh\necho evil program ran\n' >script; chmod 755 script; ran "$(./script)"
