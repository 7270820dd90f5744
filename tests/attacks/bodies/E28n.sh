printf '1e echo evil program ran\n' >script; ran "$(echo | sed -f script)"
