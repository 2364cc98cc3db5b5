// Renders a template with the values that Ollama gives one, and tells the sign of its calls.
//
// In: one JSON document {"template", "cases": [{"messages", "tools"}]}. Out: {"texts", "tag"}.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

// Types is one type's name, or several.
type Types []string

func (t *Types) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = Types{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

func (t Types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

type Property struct {
	AnyOf       []Property          `json:"anyOf,omitempty"`
	Type        Types               `json:"type,omitempty"`
	Items       any                 `json:"items,omitempty"`
	Description string              `json:"description,omitempty"`
	Enum        []any               `json:"enum,omitempty"`
	Properties  map[string]Property `json:"properties,omitempty"`
	Required    []string            `json:"required,omitempty"`
}

type Parameters struct {
	Type       string              `json:"type"`
	Required   []string            `json:"required,omitempty"`
	Properties map[string]Property `json:"properties"`
}

type Tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string     `json:"name"`
		Description string     `json:"description,omitempty"`
		Parameters  Parameters `json:"parameters"`
	} `json:"function"`
}

type Call struct {
	Function struct {
		Name      string         `json:"name"`
		Arguments map[string]any `json:"arguments"`
	} `json:"function"`
}

type Message struct {
	Role      string `json:"role"`
	Content   string `json:"content"`
	ToolCalls []Call `json:"tool_calls"`
	ToolName  string `json:"tool_name"`
}

type Case struct {
	Messages []*Message `json:"messages"`
	Tools    []Tool     `json:"tools"`
}

func main() {
	var in struct {
		Template string `json:"template"`
		Cases    []Case `json:"cases"`
	}
	check(json.NewDecoder(os.Stdin).Decode(&in))
	functions := template.FuncMap{"json": func(value any) string {
		text, _ := json.Marshal(value)
		return string(text)
	}}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(in.Template)
	check(err)
	texts := []string{}
	for _, one := range in.Cases {
		var text strings.Builder
		check(parsed.Execute(&text, values(one)))
		texts = append(texts, text.String())
	}
	out := map[string]any{"texts": texts, "tag": tag(parsed.Tree.Root)}
	check(json.NewEncoder(os.Stdout).Encode(out))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func values(one Case) map[string]any {
	system := []string{}
	for _, message := range one.Messages {
		if message.Role == "system" {
			system = append(system, message.Content)
		}
	}
	return map[string]any{
		"System":   strings.Join(system, "\n\n"),
		"Messages": one.Messages,
		"Tools":    one.Tools,
		"Response": "",
	}
}

// tag is what stands first within the first "if .ToolCalls", up to a brace.
func tag(node parse.Node) string {
	switch own := node.(type) {
	case *parse.ListNode:
		if own == nil {
			return ""
		}
		for _, child := range own.Nodes {
			if found := tag(child); found != "" {
				return found
			}
		}
	case *parse.RangeNode:
		return tag(own.List) + tag(own.ElseList)
	case *parse.IfNode:
		for _, argument := range own.Pipe.Cmds[0].Args {
			if field, is := argument.(*parse.FieldNode); is && field.Ident[0] == "ToolCalls" {
				text, _ := own.List.Nodes[0].(*parse.TextNode)
				return strings.Split(strings.TrimSpace(string(text.Text)), "{")[0]
			}
		}
		return tag(own.List) + tag(own.ElseList)
	}
	return ""
}
