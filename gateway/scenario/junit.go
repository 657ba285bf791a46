package scenario

import (
	"encoding/xml"
	"fmt"
	"io"
	"time"
)

// A Suite is the cases of one file, for WriteJUnit.
type Suite struct {
	Name  string
	Cases []Case
}

// A Case is what became of a scenario. Failure says what differs; Error that it
// could not be played.
type Case struct {
	Name           string
	Took           time.Duration
	Failure, Error string
}

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	ClassName string        `xml:"classname,attr"`
	Time      string        `xml:"time,attr"`
	Failure   *junitProblem `xml:"failure"`
	Error     *junitProblem `xml:"error"`
}

type junitProblem struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the suites as JUnit XML, as Jenkins, GitLab and GitHub's
// test reporters read it.
func WriteJUnit(w io.Writer, suites []Suite) error {
	all := junitSuites{Name: "haidang rules test"}
	for _, s := range suites {
		one := junitSuite{Name: s.Name}
		took := time.Duration(0)
		for _, c := range s.Cases {
			jc := junitCase{Name: c.Name, ClassName: s.Name, Time: seconds(c.Took)}
			switch {
			case c.Error != "":
				jc.Error = &junitProblem{"could not be played", c.Error}
				one.Errors++
			case c.Failure != "":
				jc.Failure = &junitProblem{"warnings differ", c.Failure}
				one.Failures++
			}
			one.Cases = append(one.Cases, jc)
			took += c.Took
		}
		one.Tests, one.Time = len(one.Cases), seconds(took)
		all.Suites = append(all.Suites, one)
		all.Tests, all.Failures, all.Errors = all.Tests+one.Tests, all.Failures+one.Failures, all.Errors+one.Errors
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
