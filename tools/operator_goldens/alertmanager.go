package alertmanager

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/blang/semver/v4"
	"gopkg.in/yaml.v2"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	"github.com/prometheus-operator/prometheus-operator/pkg/assets"
)

// Each of these does what a test asks for and records it.

func recordSanitize(in interface {
	sanitize(semver.Version, *slog.Logger) error
}, version semver.Version, logger *slog.Logger) error {
	inputs := dumpInputs(map[string]any{"kind": "sanitize", "in": textOf(in), "version": version.String()})
	err := in.sanitize(version, logger)
	dumpResult(inputs, []byte(textOf(in)), err)
	return err
}

func recordHTTP(spec any, out *httpClientConfig, version semver.Version, logger *slog.Logger) error {
	inputs := dumpInputs(map[string]any{"kind": "http", "in": spec, "version": version.String()})
	err := out.sanitize(version, logger)
	dumpResult(inputs, []byte(textOf(out)), err)
	return err
}

func recordLoad(text []byte) (*alertmanagerConfig, error) {
	inputs := dumpInputs(map[string]any{"kind": "load", "in": string(text)})
	out, err := alertmanagerConfigFromBytes(text)
	dumpResult(inputs, []byte(textOf(out)), err)
	return out, err
}

func recordAdd(cb *ConfigBuilder, strategy monitoringv1.AlertmanagerConfigMatcherStrategy, configs map[string]*monitoringv1alpha1.AlertmanagerConfig) error {
	inputs := dumpInputs(map[string]any{
		"kind": "add", "in": textOf(cb.cfg), "version": cb.amVersion.String(), "strategy": strategy, "configs": configs})
	err := cb.AddAlertmanagerConfigs(context.Background(), configs)
	dumpWithObjects(inputs, cb.store, textOf(cb.cfg), err)
	return err
}

func recordInitialize(cb *ConfigBuilder, strategy monitoringv1.AlertmanagerConfigMatcherStrategy, global *monitoringv1.AlertmanagerGlobalConfig, config *monitoringv1alpha1.AlertmanagerConfig) error {
	inputs := dumpInputs(map[string]any{
		"kind": "initialize", "global": global, "version": cb.amVersion.String(), "strategy": strategy, "config": config})
	err := cb.initializeFromAlertmanagerConfig(context.Background(), global, config)
	dumpWithObjects(inputs, cb.store, textOf(cb.cfg), err)
	return err
}

func recordCheck(config *monitoringv1alpha1.AlertmanagerConfig, version semver.Version, store *assets.StoreBuilder) error {
	inputs := dumpInputs(map[string]any{"kind": "check", "version": version.String(), "config": config})
	err := checkAlertmanagerConfigResource(context.Background(), config, version, store)
	dumpWithObjects(inputs, store, "", err)
	return err
}

func dumpWithObjects(inputs map[string]json.RawMessage, store *assets.StoreBuilder, output string, err error) {
	inputs["objects"], _ = json.Marshal(store.Objects()) // those that were asked for
	dumpResult(inputs, []byte(output), err)
}

func textOf(value any) string {
	text, err := yaml.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}
