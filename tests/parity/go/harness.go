// Judges cases with upstream's own HorizontalController: one JSON object a line in, one out.
//
// This file is compiled inside a copy of k8s.io/kubernetes/pkg/controller/podautoscaler (see build.py), in which
// time.Now is replaced by the case's own time. Nothing else of upstream is changed.
package podautoscaler

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-logr/logr"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	autoscalingclient "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	scaleclient "k8s.io/client-go/scale"
	"k8s.io/klog/v2"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

var caseNow time.Time

func harnessNow() time.Time { return caseNow }

type reading struct {
	Pods   map[string][3]int64 `json:"pods"` // value, time (ms), window (ms)
	Values []int64             `json:"values"`
	Error  string              `json:"error"`
}

type entry [2]int64 // replicas or change, time (ms)

type history struct {
	Recommendations []entry `json:"recommendations"`
	Ups             []entry `json:"ups"`
	Downs           []entry `json:"downs"`
}

type settings struct {
	Tolerance         float64 `json:"tolerance"`
	Stabilization     int64   `json:"downscale_stabilization_s"`
	CPUInitialization int64   `json:"cpu_initialization_period_s"`
	InitialReadiness  int64   `json:"initial_readiness_delay_s"`
}

type testCase struct {
	ID          int64                                 `json:"id"`
	NowMs       int64                                 `json:"now_ms"`
	HPA         autoscalingv2.HorizontalPodAutoscaler `json:"hpa"`
	Pods        []*v1.Pod                             `json:"pods"`
	Spec        int32                                 `json:"spec_replicas"`
	Status      int32                                 `json:"status_replicas"`
	Selector    string                                `json:"selector"`
	Others      map[string]string                     `json:"other_selectors"`
	Readings    map[string]reading                    `json:"readings"`
	History     *history                              `json:"history"`
	Settings    settings                              `json:"settings"`
	GetError    string                                `json:"get_error"`
	UpdateError string                                `json:"update_error"`
}

type verdict struct {
	ID      int64                                        `json:"id"`
	Writes  []int32                                      `json:"writes"`
	Error   string                                       `json:"error"`
	Events  [][3]string                                  `json:"events"`
	Status  *autoscalingv2.HorizontalPodAutoscalerStatus `json:"status"`
	History history                                      `json:"history"`
	Panic   string                                       `json:"panic,omitempty"`
}

// --- the cluster as the case describes it ---

type world struct {
	c       *testCase
	verdict *verdict
}

func (w *world) Event(_ runtime.Object, kind, reason, message string) {
	w.verdict.Events = append(w.verdict.Events, [3]string{kind, reason, message})
}
func (w *world) Eventf(o runtime.Object, kind, reason, format string, args ...interface{}) {
	w.Event(o, kind, reason, fmt.Sprintf(format, args...))
}
func (w *world) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...interface{}) {
	w.Eventf(o, kind, reason, format, args...)
}

type scales struct {
	scaleclient.ScaleInterface
	w *world
}

func (w *world) Scales(string) scaleclient.ScaleInterface { return &scales{w: w} }
func (s *scales) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	if s.w.c.GetError != "" {
		return nil, errors.New(s.w.c.GetError)
	}
	scale := &autoscalingv1.Scale{}
	scale.Spec.Replicas, scale.Status.Replicas, scale.Status.Selector = s.w.c.Spec, s.w.c.Status, s.w.c.Selector
	return scale, nil
}
func (s *scales) Update(_ context.Context, _ schema.GroupResource, scale *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	if s.w.c.UpdateError != "" {
		return nil, errors.New(s.w.c.UpdateError)
	}
	s.w.verdict.Writes = append(s.w.verdict.Writes, scale.Spec.Replicas)
	return scale, nil
}

type hpas struct {
	autoscalingclient.HorizontalPodAutoscalerInterface
	w *world
}

func (w *world) HorizontalPodAutoscalers(string) autoscalingclient.HorizontalPodAutoscalerInterface {
	return &hpas{w: w}
}
func (h *hpas) UpdateStatus(_ context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, _ metav1.UpdateOptions) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	h.w.verdict.Status = hpa.Status.DeepCopy()
	return hpa, nil
}

type pods struct {
	corelisters.PodListerExpansion
	w *world
}

func (p *pods) List(selector labels.Selector) ([]*v1.Pod, error) {
	var found []*v1.Pod
	for _, pod := range p.w.c.Pods {
		if selector.Matches(labels.Set(pod.Labels)) {
			found = append(found, pod)
		}
	}
	return found, nil
}
func (p *pods) Pods(string) corelisters.PodNamespaceLister { return &namespacedPods{pods: p} }

type namespacedPods struct {
	corelisters.PodNamespaceListerExpansion
	*pods
}

func (p *namespacedPods) Get(string) (*v1.Pod, error) { return nil, errors.New("not asked for") }

func (w *world) read(key string) (reading, error) {
	found, ok := w.c.Readings[key]
	if !ok {
		return found, fmt.Errorf("the case has no reading %s", key)
	}
	if found.Error != "" {
		return found, errors.New(found.Error)
	}
	return found, nil
}

func (r reading) info() metricsclient.PodMetricsInfo {
	info := metricsclient.PodMetricsInfo{}
	for name, p := range r.Pods {
		info[name] = metricsclient.PodMetric{Timestamp: time.UnixMilli(p[1]), Window: time.Duration(p[2]) * time.Millisecond, Value: p[0]}
	}
	return info
}

func (w *world) GetResourceMetric(_ context.Context, resource v1.ResourceName, _ string, _ labels.Selector, container string) (metricsclient.PodMetricsInfo, time.Time, error) {
	r, err := w.read(string(resource) + "/" + container)
	if err != nil {
		return nil, time.Time{}, err
	}
	return r.info(), caseNow, nil
}
func (w *world) GetRawMetric(name, _ string, _, _ labels.Selector) (metricsclient.PodMetricsInfo, time.Time, error) {
	r, err := w.read(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	return r.info(), caseNow, nil
}
func (w *world) GetObjectMetric(name, _ string, _ *autoscalingv2.CrossVersionObjectReference, _ labels.Selector) (int64, time.Time, error) {
	r, err := w.read(name)
	if err != nil {
		return 0, time.Time{}, err
	}
	return r.Values[0], caseNow, nil
}
func (w *world) GetExternalMetric(name, _ string, _ labels.Selector) ([]int64, time.Time, error) {
	r, err := w.read(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	return r.Values, caseNow, nil
}

// --- one case ---

var mapper = func() apimeta.RESTMapper {
	m := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "apps", Version: "v1"}})
	m.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, apimeta.RESTScopeNamespace)
	return m
}()

func seconds(s int64) time.Duration { return time.Duration(s) * time.Second }

func judge(ctx context.Context, c *testCase) (out *verdict) {
	out = &verdict{ID: c.ID}
	defer func() {
		if r := recover(); r != nil {
			out.Panic = fmt.Sprint(r)
		}
	}()
	caseNow = time.UnixMilli(c.NowMs)
	key := types.NamespacedName{Namespace: c.HPA.Namespace, Name: c.HPA.Name}.String()
	w := &world{c: c, verdict: out}
	a := newController(w, c.Settings)
	a.scaleNamespacer, a.hpaNamespacer, a.mapper, a.eventRecorder, a.podLister = w, w, mapper, w, &pods{w: w}
	a.recommendations = map[string][]timestampedRecommendation{}
	a.scaleUpEvents, a.scaleDownEvents = map[string][]timestampedScaleEvent{}, map[string][]timestampedScaleEvent{}
	if c.History != nil {
		for _, r := range c.History.Recommendations {
			a.recommendations[key] = append(a.recommendations[key], timestampedRecommendation{int32(r[0]), time.UnixMilli(r[1])})
		}
		for _, r := range c.History.Ups {
			a.scaleUpEvents[key] = append(a.scaleUpEvents[key], timestampedScaleEvent{int32(r[0]), time.UnixMilli(r[1]), false})
		}
		for _, r := range c.History.Downs {
			a.scaleDownEvents[key] = append(a.scaleDownEvents[key], timestampedScaleEvent{int32(r[0]), time.UnixMilli(r[1]), false})
		}
	}
	registerSelector(a, key, labels.Nothing())
	for name, text := range c.Others {
		selector, err := labels.Parse(text)
		if err != nil {
			panic(err)
		}
		registerSelector(a, c.HPA.Namespace+"/"+name, selector)
	}
	if err := a.reconcileAutoscaler(ctx, &c.HPA, key); err != nil {
		out.Error = err.Error()
	}
	for _, r := range a.recommendations[key] {
		out.History.Recommendations = append(out.History.Recommendations, entry{int64(r.recommendation), r.timestamp.UnixMilli()})
	}
	for _, r := range a.scaleUpEvents[key] {
		out.History.Ups = append(out.History.Ups, entry{int64(r.replicaChange), r.timestamp.UnixMilli()})
	}
	for _, r := range a.scaleDownEvents[key] {
		out.History.Downs = append(out.History.Downs, entry{int64(r.replicaChange), r.timestamp.UnixMilli()})
	}
	return out
}

// Filter reads cases from standard input until its end.
func Filter() {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil
	ctx := context.Background()
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		var c testCase
		if err := decoder.Decode(&c); err == io.EOF {
			break
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "not a case:", err)
			os.Exit(2)
		}
		if err := encoder.Encode(judge(ctx, &c)); err != nil {
			os.Exit(1)
		}
		out.Flush()
	}
}
