printf 'echo evil program ran\n' >script; ran "$(bash script)"
