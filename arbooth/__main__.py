from arbooth.cli import main

main()
