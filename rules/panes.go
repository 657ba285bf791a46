package rules

// panes is a window as a row of Panes totals, each over width/Panes of event
// time, aligned to multiples of it. The window then reaches back between 59/60
// and the whole of its width.
type panes struct {
	each   int64 // width of a pane, ns
	newest int64 // number of the newest pane: event time / each
	row    [Panes]pane
	undo   pane // the newest pane before its last sample: for a correction

	older  total // of all panes but the newest; valid when summed
	summed bool
}

type pane struct {
	total       total
	first, last sample
}

func (p *pane) add(t int64, v float64) {
	if p.total.n == 0 || t < p.first.t {
		p.first = sample{t, v}
	}
	if p.total.n == 0 || t >= p.last.t {
		p.last = sample{t, v}
	}
	p.total.add(v)
}

func newPanes(width int64) *panes { return &panes{each: max(1, width/Panes)} }

func (p *panes) at(number int64) *pane {
	i := number % Panes
	if i < 0 {
		i += Panes
	}
	return &p.row[i]
}

// number returns the pane in which t lies.
func (p *panes) number(t int64) int64 {
	n := t / p.each
	if t%p.each < 0 {
		n--
	}
	return n
}

func (p *panes) empty() bool { return p.at(p.newest).total.n == 0 }

func (p *panes) add(t int64, v float64, late bool) {
	number := p.number(t)
	if p.empty() {
		p.newest = number
	}
	switch {
	case number > p.newest:
		p.advance(number)
	case number <= p.newest-Panes && late:
		return
	case number < p.newest && !late:
		p.retreat(number)
	}
	q := p.at(number)
	if number < p.newest {
		p.summed = false
		q.add(t, v)
		return
	}
	if q.total.n > 0 && q.last.t == t {
		*q = p.undo // the same time again: the last one wins
	}
	if q.total.n == 0 || t >= q.last.t || !late {
		p.undo = *q
	}
	q.add(t, v)
	if !late {
		q.last = sample{t, v}
	}
}

// advance opens the panes up to number and drops those that fall out.
func (p *panes) advance(number int64) {
	for n := max(p.newest+1, number-Panes+1); n <= number; n++ {
		*p.at(n) = pane{}
	}
	p.newest, p.summed, p.undo = number, false, pane{}
}

// retreat makes number the newest pane again: the clock was set back.
func (p *panes) retreat(number int64) {
	for n := max(number+1, p.newest-Panes+1); n <= p.newest; n++ {
		*p.at(n) = pane{}
	}
	p.newest, p.summed, p.undo = number, false, *p.at(number)
}

func (p *panes) total() total {
	if !p.summed {
		p.older = total{}
		for n := p.newest - Panes + 1; n < p.newest; n++ {
			p.older = p.older.join(p.at(n).total)
		}
		p.summed = true
	}
	return p.older.join(p.at(p.newest).total)
}

func (p *panes) ends() (first, last sample) {
	for n := p.newest - Panes + 1; n <= p.newest; n++ {
		if q := p.at(n); q.total.n > 0 {
			first = q.first
			break
		}
	}
	return first, p.at(p.newest).last
}
