// As recorder.go, for the package metrics: what the metrics APIs answered and what upstream made of it.
package metrics

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	autoscaling "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
)

var testsNow = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)

type object = map[string]any

var (
	current string
	lines   = json.NewEncoder(open())
)

func open() *os.File {
	file, err := os.Create(os.Getenv("PARITY_CASES"))
	if err != nil {
		panic(err)
	}
	return file
}

func begin(t *testing.T) {
	before := current
	current = t.Name()
	t.Cleanup(func() { current = before })
}

func call(kind string, in, out object) {
	if err := lines.Encode(object{"name": current, "number": 1, "kind": kind, "in": in, "out": out}); err != nil {
		panic(err)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func podReading(info PodMetricsInfo) object {
	values := object{}
	for name, metric := range info {
		values[name] = []int64{metric.Value, metric.Timestamp.UnixMilli(), metric.Window.Milliseconds()}
	}
	return object{"pods": values}
}

func recordUtilization(metrics PodMetricsInfo, requests map[string]int64, target int32) (float64, int32, int64, error) {
	ratio, utilization, usage, err := GetResourceUtilizationRatio(metrics, requests, target)
	call("utilization", object{"reading": podReading(metrics), "requests": requests, "target": target},
		object{"ratio": ratio, "utilization": utilization, "usage": usage, "error": text(err)})
	return ratio, utilization, usage, err
}

func recordUsage(metrics PodMetricsInfo, target int64) (float64, int64) {
	ratio, usage := GetMetricUsageRatio(metrics, target)
	call("usage", object{"reading": podReading(metrics), "target": target}, object{"ratio": ratio, "usage": usage})
	return ratio, usage
}

type recordedClient struct {
	MetricsClient
	resources resourceclient.PodMetricsesGetter
	custom    customclient.CustomMetricsClient
	external  externalclient.ExternalMetricsClient
}

func newRecordedClient(r resourceclient.PodMetricsesGetter, c customclient.CustomMetricsClient, e externalclient.ExternalMetricsClient) MetricsClient {
	return &recordedClient{NewRESTMetricsClient(r, c, e), r, c, e}
}

func fetched(in object, answer any, failure error, reading object, at time.Time, err error) {
	in["answer"], in["failure"] = answer, text(failure)
	if err != nil {
		reading = object{"error": err.Error()}
	} else {
		reading["at_ms"] = at.UnixMilli()
	}
	call("fetch", in, reading)
}

func (r *recordedClient) GetResourceMetric(ctx context.Context, name v1.ResourceName, namespace string, selector labels.Selector, container string) (PodMetricsInfo, time.Time, error) {
	answer, failure := r.resources.PodMetricses(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	info, at, err := r.MetricsClient.GetResourceMetric(ctx, name, namespace, selector, container)
	source := object{"name": name, "target": object{"type": "AverageValue", "averageValue": "1"}}
	metric := object{"type": "Resource", "resource": source}
	if container != "" {
		source["container"] = container
		metric = object{"type": "ContainerResource", "containerResource": source}
	}
	fetched(object{"metric": metric, "namespace": namespace, "selector": selector.String()}, answer, failure, podReading(info), at, err)
	return info, at, err
}

func (r *recordedClient) GetRawMetric(name, namespace string, selector, metricSelector labels.Selector) (PodMetricsInfo, time.Time, error) {
	answer, failure := r.custom.NamespacedMetrics(namespace).GetForObjects(schema.GroupKind{Kind: "Pod"}, selector, name, metricSelector)
	info, at, err := r.MetricsClient.GetRawMetric(name, namespace, selector, metricSelector)
	source := object{"metric": object{"name": name}, "target": object{"type": "AverageValue", "averageValue": "1"}}
	fetched(object{"metric": object{"type": "Pods", "pods": source}, "namespace": namespace, "selector": selector.String()},
		answer, failure, podReading(info), at, err)
	return info, at, err
}

func (r *recordedClient) GetObjectMetric(name, namespace string, ref *autoscaling.CrossVersionObjectReference, metricSelector labels.Selector) (int64, time.Time, error) {
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	value, failure := r.custom.NamespacedMetrics(namespace).GetForObject(kind, ref.Name, name, metricSelector)
	usage, at, err := r.MetricsClient.GetObjectMetric(name, namespace, ref, metricSelector)
	source := object{"metric": object{"name": name}, "describedObject": ref, "target": object{"type": "Value", "value": "1"}}
	fetched(object{"metric": object{"type": "Object", "object": source}, "namespace": namespace, "selector": ""},
		object{"items": []any{value}}, failure, object{"values": []int64{usage}}, at, err)
	return usage, at, err
}

func (r *recordedClient) GetExternalMetric(name, namespace string, selector labels.Selector) ([]int64, time.Time, error) {
	answer, failure := r.external.NamespacedMetrics(namespace).List(name, selector)
	values, at, err := r.MetricsClient.GetExternalMetric(name, namespace, selector)
	source := object{"metric": object{"name": name}, "target": object{"type": "Value", "value": "1"}}
	fetched(object{"metric": object{"type": "External", "external": source}, "namespace": namespace, "selector": ""},
		answer, failure, object{"values": append([]int64{}, values...)}, at, err)
	return values, at, err
}
