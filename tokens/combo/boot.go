package combo

import "luksmith/tokens"

var _ tokens.BootNeeder = (*Handler)(nil)

// BootNeeds implements [tokens.BootNeeder]: what any type needs that can be a factor.
func (h *Handler) BootNeeds() (needs tokens.BootNeeds) {
	for _, t := range h.Types {
		if n, ok := t.(tokens.BootNeeder); ok {
			more := n.BootNeeds()
			needs.Modules = append(needs.Modules, more.Modules...)
			needs.Folders = append(needs.Folders, more.Folders...)
			needs.Helpers = append(needs.Helpers, more.Helpers...)
		}
	}
	return needs
}
