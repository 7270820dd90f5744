printf 'echo evil program ran\n' >script; ran "$(/lib64/ld-linux-x86-64.so.2 /bin/dash script)"
