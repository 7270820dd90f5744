printf 'echo evil program ran\n' >script; ran "$(sh script)"
