package assets

// Objects lists the Secrets and ConfigMaps that the store holds.
func (s *StoreBuilder) Objects() []any {
	if s == nil || s.objStore == nil {
		return nil
	}
	return s.objStore.List()
}
