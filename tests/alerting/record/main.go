// Records what Alertmanager's own parsers and tables answer: copy into its module as cmd/record and run
//
//	go run ./cmd/record <cases.json >golden.json
package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v2"
)

type cases struct {
	Matchers  []string `json:"matchers"`
	Intervals []struct {
		Yaml  string
		Times []int64
	} `json:"intervals"`
	Routing struct {
		Yaml   string              `json:"yaml"`
		Labels []map[string]string `json:"labels"`
	} `json:"routing"`
}

func shown(found labels.Matchers, err error) any {
	if err != nil {
		return nil
	}
	return found.String()
}

func main() {
	var given cases
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	log := slog.New(slog.DiscardHandler)
	compat.InitFromFlags(log, featurecontrol.NoopFlags{})
	matchers := map[string][]any{}
	for _, text := range given.Matchers {
		matchers[text] = []any{
			shown(compat.FallbackMatchersParser(log)(text, "")),
			shown(compat.UTF8MatchersParser(log)(text, "")),
			shown(compat.ClassicMatchersParser(log)(text, "")),
		}
	}
	intervals := [][]any{}
	for _, one := range given.Intervals {
		var found timeinterval.TimeInterval
		if err := yaml.UnmarshalStrict([]byte(one.Yaml), &found); err != nil {
			intervals = append(intervals, nil)
			continue
		}
		answers := []any{}
		for _, at := range one.Times {
			answers = append(answers, found.ContainsTime(time.Unix(at, 0).UTC()))
		}
		intervals = append(intervals, answers)
	}
	loaded, err := config.Load(given.Routing.Yaml)
	if err != nil {
		panic(err)
	}
	root, routed := dispatch.NewRoute(loaded.Route, nil), [][][]string{}
	for _, one := range given.Routing.Labels {
		set, taken := model.LabelSet{}, [][]string{}
		for name, value := range one {
			set[model.LabelName(name)] = model.LabelValue(value)
		}
		for _, route := range root.Match(set) {
			taken = append(taken, []string{route.RouteOpts.Receiver, route.Key(), route.ID(), set.Fingerprint().String()})
		}
		routed = append(routed, taken)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"matchers": matchers, "intervals": intervals, "routing": routed})
}
