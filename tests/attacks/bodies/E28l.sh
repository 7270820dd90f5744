printf 'echo evil program ran\n' >script; ran "$(cat script | sh)$(sh -c "$(cat script)")"
