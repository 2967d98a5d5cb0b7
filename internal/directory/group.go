package directory

// Group finds a group by its own address (any spelling; no subaddress). Package delivery asks it whether a recipient is
// a private group; membership is MaySendAs.
func (d *Directory) Group(address string) (Group, bool) { panic("directory room") }
