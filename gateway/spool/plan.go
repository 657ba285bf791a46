package spool

import (
	"os"
	"path/filepath"
)

// A plan is what is to be done to the blocks of one stream.
type plan struct {
	stream string
	note   end // of a log
	closed bool
	ours   bool // nobody but us empties the log at its beginning
	found  []damage
}

// log plans for a log, whose sequences have no gap but at its beginning: what is
// missing between two records is lost. It returns the blocks, with one more when
// there is none to put a filler into.
func (p *plan) log(blocks []*block, folder string) []*block {
	known, knownAt := uint64(0), int64(0)
	var evidence *block // damage since the last record
	bytes := 0
	for _, b := range blocks {
		if b.size == 0 {
			evidence = b
		}
		for i := range b.pieces {
			one := &b.pieces[i]
			if one.bad {
				evidence, one.drop = b, true
				bytes += one.to - one.from
				continue
			}
			if !one.buried && one.first > known+1 && (known > 0 || evidence != nil || p.headless(one.first)) {
				if first := p.begin(known, one.first-1); first < one.first {
					p.lose(evidence, b, damage{first: first, last: one.first - 1, after: knownAt, before: one.firstAt, bytes: bytes})
				}
				if known > 0 {
					one.fill = &record{seq: one.first - 1, time: one.firstAt}
				}
			} else if bytes > 0 {
				p.lose(evidence, b, damage{bytes: bytes}) // of what is gone, or there again
			}
			if one.last > known {
				known, knownAt = one.last, one.lastAt
			}
			evidence, bytes = nil, 0
		}
	}
	return p.end(blocks, folder, known, knownAt, bytes)
}

// end plans for what the newest block lacks at its end.
func (p *plan) end(blocks []*block, folder string, known uint64, knownAt int64, bytes int) []*block {
	lost := p.note
	if p.note.last == 0 {
		lost = p.guess(blocks, known)
	}
	if lost.last <= known {
		// The rest of a frame that was never acknowledged, which JetStream cuts off.
		for _, b := range blocks {
			for i := range b.pieces {
				if one := &b.pieces[i]; one.bad && b == blocks[len(blocks)-1] && i == len(b.pieces)-1 {
					one.drop = false
				}
			}
		}
		return blocks
	}
	if len(blocks) == 0 {
		blocks = []*block{{path: filepath.Join(folder, "1"+blockSuffix), number: 1}}
	}
	b := blocks[len(blocks)-1]
	p.lose(nil, b, damage{first: p.begin(known, lost.last), last: lost.last, after: knownAt, before: lost.received, bytes: bytes})
	b.tail = &record{seq: lost.last, time: max(lost.received, knownAt)}
	return blocks
}

// headless tells whether a log lacks the block that it began with. What emptied it
// otherwise was noted before.
func (p *plan) headless(first uint64) bool {
	return p.ours && p.note.last > 0 && first > max(p.note.first, 1)
}

// begin returns the first sequence that is lost before last.
func (p *plan) begin(known, last uint64) uint64 {
	switch {
	case known > 0:
		return known + 1
	case p.note.last > 0:
		return max(p.note.first, 1)
	}
	return last // there is no telling how many were before it
}

// guess returns where a log ended of which there is no note: the bytes behind its
// last record that look like whole ones, in order.
func (p *plan) guess(blocks []*block, known uint64) (e end) {
	if len(blocks) == 0 {
		return e
	}
	b := blocks[len(blocks)-1]
	if len(b.pieces) == 0 || !b.pieces[len(b.pieces)-1].bad {
		return e
	}
	all, err := os.ReadFile(b.path)
	if err != nil {
		return e // JetStream tells of what cannot be read
	}
	for rest := all[b.pieces[len(b.pieces)-1].from:]; ; {
		r, ok := guess(rest)
		if !ok || known > 0 && r.seq != known+1 {
			return e
		}
		e, known, rest = end{last: r.seq, received: r.time}, r.seq, rest[r.to:]
	}
}

// lose notes what is lost; it was in the block where the evidence is.
func (p *plan) lose(evidence, b *block, d damage) {
	if evidence == nil {
		evidence = b
	}
	d.stream, d.what = p.stream, filepath.Base(evidence.path)
	p.found = append(p.found, d)
}

// other plans for positions and checkpoints: what cannot be read is taken out.
func (p *plan) other(blocks []*block) {
	for n, b := range blocks {
		for i := range b.pieces {
			one := &b.pieces[i]
			if !one.bad || !p.closed && n == len(blocks)-1 && i == len(b.pieces)-1 {
				continue // whole, or perhaps torn by a kill: JetStream cuts it off
			}
			one.drop = true
			p.lose(b, b, damage{bytes: one.to - one.from})
		}
	}
}
