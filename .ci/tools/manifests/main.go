// Manifests checks what Kubernetes would be given, without one: it renders a
// kustomization as kubectl does, decodes every document strictly into the types of
// Kubernetes' own API, and follows the names by which they refer to each other.
//
//	go run ./manifests ../../deploy/cluster ../../deploy/cluster/kubernetes/secret.example.yaml
//
// An argument is a folder with a kustomization, or a file that is only decoded and
// referred to. It prints a line for each fault and ends with code 1 if there is one.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: manifests FOLDER-OR-FILE...")
		os.Exit(2)
	}
	all := newManifests()
	for _, name := range os.Args[1:] {
		text, err := render(name)
		if err != nil {
			fmt.Printf("%s: %v\n", name, err)
			os.Exit(1)
		}
		if err := all.take(name, text); err != nil {
			fmt.Printf("%s: %v\n", name, err)
			os.Exit(1)
		}
	}
	all.follow()
	for _, fault := range all.faults {
		fmt.Println(fault)
	}
	if len(all.faults) > 0 {
		os.Exit(1)
	}
	fmt.Printf("well: %d documents\n", all.count)
}

// render returns the documents of a folder or file.
func render(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		text, err2 := os.ReadFile(name)
		return text, errors.Join(err, err2)
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), name)
	if err != nil {
		return nil, err
	}
	return made.AsYaml()
}

// take decodes documents.
func (m *manifests) take(name string, text []byte) error {
	reader := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer reader.Close()
	buffer := make([]byte, len(text)+1)
	for {
		n, err := reader.Read(buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(buffer[:n])) > 0 {
			m.decode(name, buffer[:n])
		}
	}
}
