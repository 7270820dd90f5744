need chattr; : >file; undo 'chattr -i file'; chattr +i file && ! rm -f file
