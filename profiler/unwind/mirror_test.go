package unwind

import (
	"testing"

	"github.com/pilotlight/pilotlight/bpf"
)

// What stands in tables means the same to the programs that walk by them.
func TestMirrors(t *testing.T) {
	for name, c := range map[string]struct {
		here  int
		there uint64
	}{
		"gap":                 {int(Gap), uint64(bpf.CpuRuleKindRULE_GAP)},
		"outermost":           {int(Outermost), uint64(bpf.CpuRuleKindRULE_OUTERMOST)},
		"step":                {int(Step), uint64(bpf.CpuRuleKindRULE_STEP)},
		"signal frame":        {int(SignalFrame), uint64(bpf.CpuRuleKindRULE_SIGNAL_FRAME)},
		"goroutine":           {int(Goroutine), uint64(bpf.CpuRuleKindRULE_GOROUTINE)},
		"stack switch":        {int(StackSwitch), uint64(bpf.CpuRuleKindRULE_STACK_SWITCH)},
		"CFA by register":     {int(CFARegister), uint64(bpf.CpuRuleCfaRULE_CFA_REGISTER)},
		"CFA in memory":       {int(CFAMemory), uint64(bpf.CpuRuleCfaRULE_CFA_MEMORY)},
		"CFA of a PLT":        {int(CFAPLT), uint64(bpf.CpuRuleCfaRULE_CFA_PLT)},
		"unchanged":           {int(Unchanged), uint64(bpf.CpuRuleSavedRULE_UNCHANGED)},
		"at the CFA":          {int(AtCFA), uint64(bpf.CpuRuleSavedRULE_AT_CFA)},
		"at a base":           {int(AtBase), uint64(bpf.CpuRuleSavedRULE_AT_BASE)},
		"in a base":           {int(InBase), uint64(bpf.CpuRuleSavedRULE_IN_BASE)},
		"code of a gap":       {codeGap, uint64(bpf.CpuRuleNoneRULE_NONE_GAP)},
		"code of a root":      {codeOutermost, uint64(bpf.CpuRuleNoneRULE_NONE_OUTERMOST)},
		"bits of a code":      {codeBits, uint64(bpf.CpuLimitLIMIT_RULE_BITS)},
		"bits within a block": {blockBits, uint64(bpf.CpuLimitLIMIT_BLOCK_BITS)},
	} {
		if uint64(c.here) != c.there {
			t.Errorf("%s: %d, in the programs %d", name, c.here, c.there)
		}
	}
}
