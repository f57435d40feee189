// Command appsets prints the Applications that Argo CD's ApplicationSet controller would make, with the controller's own code
// and no cluster: `appsets REPOSITORY < documents.yaml`, where the documents are ApplicationSets, AppProjects and Secrets of
// clusters. Git generators read REPOSITORY, a folder, whatever URL they name.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/argoproj/argo-cd/v3/applicationset/controllers/template"
	"github.com/argoproj/argo-cd/v3/applicationset/generators"
	"github.com/argoproj/argo-cd/v3/applicationset/utils"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	log "github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const namespace = "argocd"

// folder serves the files of a folder as if it were every repository at every revision.
type folder string

func (f folder) GetFiles(_ context.Context, _, _, _, pattern string, _, _ bool) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(string(f), pattern))
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(string(f), path)
		if err != nil {
			return nil, err
		}
		files[name] = content
	}
	return files, nil
}

func (f folder) GetDirectories(context.Context, string, string, string, bool, bool) ([]string, error) {
	return nil, errors.New("no ApplicationSet here reads directories")
}

// documents is what was read, and the part of a client that generators use: listing Secrets by labels, getting a project.
type documents struct {
	client.Client
	sets     []v1alpha1.ApplicationSet
	projects []v1alpha1.AppProject
	clusters []corev1.Secret
}

func (d documents) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	for _, project := range d.projects {
		if project.Name == key.Name {
			project.DeepCopyInto(object.(*v1alpha1.AppProject))
			return nil
		}
	}
	return fmt.Errorf("there is no AppProject %s", key.Name)
}

func (d documents) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	wanted := client.ListOptions{}
	wanted.ApplyOptions(options)
	found := list.(*corev1.SecretList)
	for _, item := range d.clusters {
		if wanted.LabelSelector == nil || wanted.LabelSelector.Matches(labels.Set(item.Labels)) {
			found.Items = append(found.Items, item)
		}
	}
	return nil
}

func read(input io.Reader) (found documents, err error) {
	decoder := kubeyaml.NewYAMLOrJSONDecoder(input, 4096)
	for {
		var raw runtime.RawExtension
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return found, err
		}
		if len(bytes.TrimSpace(raw.Raw)) == 0 {
			continue
		}
		var kind struct{ Kind string }
		if err := yaml.Unmarshal(raw.Raw, &kind); err != nil {
			return found, err
		}
		switch kind.Kind {
		case "ApplicationSet":
			var set v1alpha1.ApplicationSet
			if err := yaml.UnmarshalStrict(raw.Raw, &set); err != nil {
				return found, err
			}
			found.sets = append(found.sets, set)
		case "AppProject":
			var project v1alpha1.AppProject
			if err := yaml.UnmarshalStrict(raw.Raw, &project); err != nil {
				return found, err
			}
			found.projects = append(found.projects, project)
		case "Secret":
			var secret corev1.Secret
			if err := yaml.UnmarshalStrict(raw.Raw, &secret); err != nil {
				return found, err
			}
			secret.Data = map[string][]byte{}
			for key, value := range secret.StringData { // as the API server does
				secret.Data[key] = []byte(value)
			}
			found.clusters = append(found.clusters, secret)
		default:
			return found, fmt.Errorf("%q is neither an ApplicationSet nor an AppProject nor a Secret", kind.Kind)
		}
	}
}

func run(repository string, input io.Reader, output io.Writer) error {
	found, err := read(input)
	if err != nil {
		return err
	}
	objects := make([]runtime.Object, len(found.clusters))
	for i := range found.clusters {
		objects[i] = &found.clusters[i]
	}
	ctx := context.Background()
	terminal := map[string]generators.Generator{
		"Clusters": generators.NewClusterGenerator(ctx, found, fake.NewClientset(objects...), namespace),
		"Git":      generators.NewGitGenerator(folder(repository), namespace),
	}
	all := map[string]generators.Generator{"Matrix": generators.NewMatrixGenerator(terminal)}
	for _, set := range found.sets {
		applications, _, err := template.GenerateApplications(log.NewEntry(log.StandardLogger()), set, all, &utils.Render{}, found)
		if err != nil {
			return fmt.Errorf("%s: %w", set.Name, err)
		}
		for _, application := range applications {
			application.Kind, application.APIVersion = "Application", "argoproj.io/v1alpha1"
			if application.Annotations == nil {
				application.Annotations = map[string]string{}
			}
			application.Annotations["isa-cloud.io/made-by"] = set.Name // the controller says it by an owner reference
			text, err := yaml.Marshal(application)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(output, "---\n%s", text); err != nil {
				return err
			}
		}
	}
	return nil
}

func main() {
	log.SetLevel(log.ErrorLevel)
	log.SetOutput(os.Stderr)
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: appsets REPOSITORY < documents.yaml")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
