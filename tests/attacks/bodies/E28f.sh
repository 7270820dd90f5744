printf 'BEGIN { system("echo evil program ran") }\n' >script; ran "$(awk -f script)"
