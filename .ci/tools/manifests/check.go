package main

import (
	"fmt"
	"slices"
	"strings"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// A workload is what makes pods.
type workload struct {
	name     string // Kind/name
	selector *meta.LabelSelector
	pod      core.PodTemplateSpec
	claims   []core.PersistentVolumeClaim
}

// manifests are all documents.
type manifests struct {
	faults    []string
	count     int
	workloads []workload
	services  []core.Service
	budgets   []policy.PodDisruptionBudget
	scalers   []autoscaling.HorizontalPodAutoscaler
	keys      map[string][]string // of ConfigMap/name and Secret/name
}

func newManifests() *manifests { return &manifests{keys: map[string][]string{}} }

func (m *manifests) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// decode takes one document; a key that the API does not know is a fault.
func (m *manifests) decode(file string, text []byte) {
	m.count++
	var kind struct {
		meta.TypeMeta `json:",inline"`
		Metadata      meta.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(text, &kind); err != nil {
		m.fault("%s: %v", file, err)
		return
	}
	name := kind.Kind + "/" + kind.Metadata.Name
	into := func(object any) bool {
		if err := yaml.UnmarshalStrict(text, object); err != nil {
			m.fault("%s: %s: %v", file, name, err)
			return false
		}
		return true
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Namespace":
		into(new(core.Namespace))
	case "v1 ConfigMap":
		if o := new(core.ConfigMap); into(o) {
			m.keys[name] = keysOf(o.Data)
		}
	case "v1 Secret":
		if o := new(core.Secret); into(o) {
			m.keys[name] = append(keysOf(o.StringData), keysOf(o.Data)...)
		}
	case "v1 Service":
		if o := new(core.Service); into(o) {
			m.services = append(m.services, *o)
		}
	case "apps/v1 Deployment":
		if o := new(apps.Deployment); into(o) {
			m.workloads = append(m.workloads, workload{name, o.Spec.Selector, o.Spec.Template, nil})
		}
	case "apps/v1 StatefulSet":
		if o := new(apps.StatefulSet); into(o) {
			m.workloads = append(m.workloads, workload{name, o.Spec.Selector, o.Spec.Template, o.Spec.VolumeClaimTemplates})
		}
	case "policy/v1 PodDisruptionBudget":
		if o := new(policy.PodDisruptionBudget); into(o) {
			m.budgets = append(m.budgets, *o)
		}
	case "autoscaling/v2 HorizontalPodAutoscaler":
		if o := new(autoscaling.HorizontalPodAutoscaler); into(o) {
			m.scalers = append(m.scalers, *o)
		}
	default:
		m.fault("%s: %q of %s is not known here", file, kind.APIVersion+" "+kind.Kind, name)
	}
}

func keysOf[V any](of map[string]V) (keys []string) {
	for key := range of {
		keys = append(keys, key)
	}
	return keys
}

// follow looks whether what is referred to is there.
func (m *manifests) follow() {
	for _, w := range m.workloads {
		m.checkWorkload(w)
	}
	for _, s := range m.services {
		name := "Service/" + s.Name
		for _, w := range m.selected(name, &meta.LabelSelector{MatchLabels: s.Spec.Selector}) {
			for _, p := range s.Spec.Ports {
				if !hasPort(w, p.TargetPort.StrVal) {
					m.fault("%s: %s has no port %q", name, w.name, p.TargetPort.StrVal)
				}
			}
		}
	}
	for _, b := range m.budgets {
		m.selected("PodDisruptionBudget/"+b.Name, b.Spec.Selector)
	}
	for _, s := range m.scalers {
		target := s.Spec.ScaleTargetRef.Kind + "/" + s.Spec.ScaleTargetRef.Name
		if !slices.ContainsFunc(m.workloads, func(w workload) bool { return w.name == target }) {
			m.fault("HorizontalPodAutoscaler/%s: there is no %s", s.Name, target)
		}
	}
}

// selected returns the workloads whose pods are selected; none is a fault.
func (m *manifests) selected(who string, by *meta.LabelSelector) (out []workload) {
	selector, err := meta.LabelSelectorAsSelector(by)
	if err != nil {
		m.fault("%s: %v", who, err)
		return nil
	}
	for _, w := range m.workloads {
		if selector.Matches(labels.Set(w.pod.Labels)) {
			out = append(out, w)
		}
	}
	if len(out) == 0 || selector.Empty() {
		m.fault("%s selects no pod", who)
	}
	return out
}

func hasPort(w workload, name string) bool {
	for _, c := range w.pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return true
			}
		}
	}
	return false
}

func (m *manifests) checkWorkload(w workload) {
	selector, err := meta.LabelSelectorAsSelector(w.selector)
	if err != nil || !selector.Matches(labels.Set(w.pod.Labels)) {
		m.fault("%s does not select its own pods: %v", w.name, err)
	}
	volumes := map[string]bool{}
	for _, c := range w.claims {
		volumes[c.Name] = true
	}
	for _, v := range w.pod.Spec.Volumes {
		volumes[v.Name] = true
		m.checkVolume(w.name, v)
	}
	if s := w.pod.Spec.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil {
		m.fault("%s may run as root, or without a seccomp profile", w.name)
	}
	for _, c := range w.pod.Spec.Containers {
		m.checkContainer(w, c, volumes)
	}
}

func (m *manifests) checkVolume(who string, v core.Volume) {
	sources := []core.VolumeProjection{{}}
	if v.Projected != nil {
		sources = v.Projected.Sources
	}
	for _, s := range sources {
		if s.ConfigMap != nil {
			m.checkKeys(who, "ConfigMap/"+s.ConfigMap.Name, s.ConfigMap.Items)
		}
		if s.Secret != nil {
			m.checkKeys(who, "Secret/"+s.Secret.Name, s.Secret.Items)
		}
	}
	if v.ConfigMap != nil {
		m.checkKeys(who, "ConfigMap/"+v.ConfigMap.Name, v.ConfigMap.Items)
	}
	if v.Secret != nil {
		m.checkKeys(who, "Secret/"+v.Secret.SecretName, v.Secret.Items)
	}
}

func (m *manifests) checkKeys(who, object string, items []core.KeyToPath) {
	keys, there := m.keys[object]
	if !there {
		m.fault("%s: there is no %s", who, object)
	}
	for _, item := range items {
		if there && !slices.Contains(keys, item.Key) {
			m.fault("%s: %s has no key %q", who, object, item.Key)
		}
	}
}

func (m *manifests) checkContainer(w workload, c core.Container, volumes map[string]bool) {
	who := w.name + ": " + c.Name
	if at := strings.LastIndexByte(c.Image, ':'); at < 0 || strings.HasSuffix(c.Image, ":latest") {
		m.fault("%s: image %q is not pinned to a version", who, c.Image)
	}
	for _, v := range c.VolumeMounts {
		if !volumes[v.Name] {
			m.fault("%s: there is no volume %q", who, v.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			ref := e.ValueFrom.SecretKeyRef
			m.checkKeys(who, "Secret/"+ref.Name, []core.KeyToPath{{Key: ref.Key}})
		}
	}
	for name, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		switch {
		case probe == nil || probe.HTTPGet == nil:
			m.fault("%s has no %s probe", who, name)
		case !hasPort(w, probe.HTTPGet.Port.StrVal):
			m.fault("%s: the %s probe asks port %q, which is not there", who, name, probe.HTTPGet.Port.StrVal)
		}
	}
	for what, limit := range c.Resources.Limits {
		if request := c.Resources.Requests[what]; request.Cmp(limit) > 0 {
			m.fault("%s asks for more %s than its limit", who, what)
		}
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
		m.fault("%s has no limit of memory, or no request of CPU", who)
	}
	s := c.SecurityContext
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.Capabilities == nil || len(s.Capabilities.Drop) == 0 {
		m.fault("%s: may gain rights or write its own root", who)
	}
}
