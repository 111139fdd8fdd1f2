package combo

// subsets are all ways to choose k of n, in order, as ascending indexes.
func subsets(n, k int) [][]int {
	if k == 0 {
		return [][]int{nil}
	}
	var list [][]int
	for last := k - 1; last < n; last++ {
		for _, rest := range subsets(last, k-1) {
			list = append(list, append(rest[:len(rest):len(rest)], last))
		}
	}
	return list
}
