package disk

// OS is the real file system.
func OS() FS { panic("base room") }
