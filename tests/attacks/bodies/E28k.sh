printf 'echo evil program ran\n' >script; ran "$(flock script sh -c 'exec sh <&3')"
