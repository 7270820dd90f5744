ran "$(perl -e 'print "evil program ran\n"')"
