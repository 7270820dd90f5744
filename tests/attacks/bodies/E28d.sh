printf 'echo evil program ran\n' >script; ln script hard; ln -s "$PWD/hard" link; for s in link "/proc/1/root$PWD/hard"; do ran "$(sh $s)" && exit 0; done; false
