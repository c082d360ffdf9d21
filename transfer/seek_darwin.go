package transfer

// Of lseek(2), where Darwin has them the other way round.
const (
	seekData = 4
	seekHole = 3
)
