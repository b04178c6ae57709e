package prometheus

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// dumpInputs keeps what a configuration is generated from, before the generator changes any of it.
func dumpInputs(fields map[string]any) map[string]json.RawMessage {
	fields["test"] = callingTest()
	out := map[string]json.RawMessage{}
	for name, value := range fields {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		out[name] = text
	}
	return out
}

// dumpResult writes the inputs with what came of them, one file a case.
func dumpResult(fields map[string]json.RawMessage, output []byte, failure error) {
	fields["output"], _ = json.Marshal(string(output))
	if failure != nil {
		fields["error"], _ = json.Marshal(failure.Error())
	}
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256(text))
	if err := os.WriteFile(filepath.Join(os.Getenv("DUMP_DIR"), name), text, 0o644); err != nil {
		panic(err)
	}
}

func callingTest() string {
	callers := make([]uintptr, 40)
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers)])
	for {
		frame, more := frames.Next()
		if i := strings.LastIndex(frame.Function, ".Test"); i >= 0 {
			return strings.SplitN(frame.Function[i+1:], ".", 2)[0]
		}
		if !more {
			return ""
		}
	}
}
